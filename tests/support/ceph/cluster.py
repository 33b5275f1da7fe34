"""A real Ceph cluster in a folder: a monitor, three OSDs with three copies, an S3 gateway.

No systemd and no containers: Debian's packages, whose daemons run on 127.0.0.1 and on files of
that folder. A stopped cluster starts again with what it held::

    python cluster.py start FOLDER      # installs what is missing, as root; prints export lines
    python cluster.py mount FOLDER DIR  # and mounts CephFS by FUSE, as often as you like
    python cluster.py stop FOLDER [--wipe]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

OSDS = 3
BUCKET = "hashfs"
KEY, SECRET = "hashfs-key", "hashfs-secret"
PACKAGES = ("ceph-mon", "ceph-osd", "radosgw", "ceph-common", "openssl")
FILE_PACKAGES = ("ceph-mds", "ceph-fuse")
PORTS = ("mon_v1", "mon_v2", "s3", "s3_tls")
START_TIMEOUT = 180.0  # seconds, on a machine that does other things too

CONFIG = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
run dir = {folder}/run
pid file = {folder}/run/$name.pid
admin socket = {folder}/run/$name.$pid.asok
log file = {folder}/log/$name.log
crash dir = {folder}/crash
osd pool default size = {osds}
osd pool default min size = 2
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool delete = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
mon data avail warn = 2
mon data avail crit = 1
mon osd min down reporters = 1
mon osd down out interval = 600

[mon]
mon data = {folder}/mon/$id
mon rocksdb options = write_buffer_size=8388608,compression=kNoCompression

[osd]
osd data = {folder}/osd/$id
osd objectstore = bluestore
bluestore block create = true
bluestore block size = 10737418240
bluestore cache autotune = false
bluestore cache size = 67108864
osd memory target = 939524096
osd heartbeat interval = 1
osd heartbeat grace = 6
osd class update on start = false
osd op num shards = 2
osd op num threads per shard = 1
osd recovery sleep = 0
osd max backfills = 8
osd recovery max active = 16

[mds]
mds data = {folder}/mds/$id

[client.admin]
pid file = {folder}/run/$name.$pid.pid

[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{s3} ssl_endpoint=127.0.0.1:{s3_tls} \
    ssl_certificate={folder}/tls.crt ssl_private_key={folder}/tls.key tcp_nodelay=1
rgw enable usage log = false
rgw thread pool size = 64
rgw dns name = 127.0.0.1
"""

CERTIFICATE = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = 127.0.0.1
[extensions]
subjectAltName = IP:127.0.0.1
basicConstraints = critical,CA:FALSE
"""

CAPABILITIES: Mapping[str, Mapping[str, str]] = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"},
    "client.rgw": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "mds.a": {"mon": "allow profile mds", "osd": "allow rwx", "mds": "allow"},
    **{
        f"osd.{number}": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"}
        for number in range(OSDS)
    },
}


class ClusterError(Exception):
    """The cluster cannot be started; says why."""


class Cluster:
    """The cluster in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.config = self.folder / "ceph.conf"

    # -- the whole ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start what is not running, and make what is missing; it may be called at any time."""
        install(PACKAGES)
        self._make_folder()
        self.start_daemon("mon.a")
        self._ceph("mon", "stat")
        for number in range(OSDS):
            self.start_daemon(f"osd.{number}")
        self._wait_for(lambda: self._osds_up() >= OSDS, "the OSDs")
        self.start_daemon("client.rgw")
        self._make_bucket()

    def stop(self) -> None:
        """End the daemons of this folder, and no others, and its mounts."""
        for target in self._mounts():
            self.unmount(target)
        (self.folder / "mounts").unlink(missing_ok=True)
        for name in ("client.rgw", "mds.a", *self.osds, "mon.a"):
            pid = self._pid(name)
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + 15
                while self._pid(name) is not None and time.monotonic() < deadline:
                    time.sleep(0.1)
            self.kill(name)

    @property
    def osds(self) -> list[str]:
        """The names of the OSDs."""
        return [f"osd.{number}" for number in range(OSDS)]

    @property
    def daemons(self) -> list[str]:
        """The names of all daemons that store or serve objects, in the order they start."""
        return ["mon.a", *self.osds, "client.rgw"]

    def environment(self) -> dict[str, str]:
        """Return the variables by which the tests find the cluster."""
        ports = self._ports()
        endpoint = f"http://127.0.0.1:{ports['s3']}"
        return {
            "HASHFS_TEST_S3": endpoint,
            "HASHFS_TEST_S3_TLS": f"https://127.0.0.1:{ports['s3_tls']}",
            "HASHFS_TEST_S3_CERTIFICATE": str(self.folder / "tls.crt"),
            "HASHFS_TEST_S3_BUCKET": BUCKET,
            "HASHFS_TEST_CEPH": str(self.folder),
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
        }

    # -- one daemon --------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Kill a daemon as a power cut would."""
        pid = self._pid(name)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        while self._pid(name) is not None:
            time.sleep(0.02)

    def start_daemon(self, name: str) -> None:
        """Start a daemon unless it runs."""
        kind, _, number = name.partition(".")
        if self._pid(name) is not None:
            return
        if kind == "mon":
            self._make_monitor()
            self._run("ceph-mon", "-i", number)
        elif kind == "osd":
            self._make_osd(number)
            self._run("ceph-osd", "-i", number)
        elif kind == "mds":
            (self.folder / "mds" / number).mkdir(parents=True, exist_ok=True)
            self._run("ceph-mds", "-i", number)
        else:
            self._run("radosgw", "-n", name)
            self._wait_for(self._gateway_answers, "the gateway")

    def _pid(self, name: str) -> int | None:
        """Return the process of a daemon of this folder, if it runs."""
        try:
            pid = int((self.folder / "run" / f"{name}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return pid if str(self.config).encode() in command and state != "Z" else None

    # -- CephFS ------------------------------------------------------------------------------

    def mount(self, target: Path) -> None:
        """Make a file system in the cluster, and mount it by FUSE."""
        install(FILE_PACKAGES)
        if "name: files" not in self._ceph("fs", "ls"):
            for pool in ("files_metadata", "files_data"):
                self._ceph("osd", "pool", "create", pool, "8")
            self._ceph("fs", "new", "files", "files_metadata", "files_data")
        self.start_daemon("mds.a")
        self._wait_for(lambda: "up:active" in self._ceph("mds", "stat"), "the metadata server")
        target.mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(target):
            self._run("ceph-fuse", "-n", "client.admin", str(target))
            with (self.folder / "mounts").open("a") as mounts:
                mounts.write(f"{target.resolve()}\n")

    def unmount(self, target: Path) -> None:
        """Take a mount away, even if something still uses it or the cluster is gone."""
        with contextlib.suppress(ClusterError):  # it was not mounted any more
            _call(["umount", "-l", str(target)])

    def _mounts(self) -> list[Path]:
        try:
            return [Path(line) for line in (self.folder / "mounts").read_text().splitlines()]
        except FileNotFoundError:
            return []

    # -- making ------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        for name in ("run", "log", "mon", "osd", "rgw", "crash"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            ports = {name: free_port() for name in PORTS}
            (self.folder / "ports.json").write_text(json.dumps(ports))
            values = {"folder": self.folder, "fsid": uuid.uuid4(), "osds": OSDS, **ports}
            self.config.write_text(CONFIG.format(**values))
        keyring = self.folder / "keyring"
        if not keyring.exists():
            keyring.touch(0o600)
            keyring.write_text("".join(map(_keyring_entry, CAPABILITIES)))
        self._make_certificate()

    def _make_certificate(self) -> None:
        """Make a certificate that nobody has signed; clients are told to trust it."""
        wanted, made, key = (self.folder / f"tls.{end}" for end in ("conf", "crt", "key"))
        if made.exists():
            return
        wanted.write_text(CERTIFICATE)
        words = ["-x509", "-nodes", "-newkey", "rsa:2048", "-days", "3650", "-config", str(wanted)]
        _call(["openssl", "req", *words, "-keyout", str(key), "-out", str(made)])

    def _make_monitor(self) -> None:
        folder, done = self.folder / "mon" / "a", self.folder / "mon" / "made"
        if done.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        ports, monmap = self._ports(), str(self.folder / "monmap")
        addresses = f"[v2:127.0.0.1:{ports['mon_v2']},v1:127.0.0.1:{ports['mon_v1']}]"
        fsid = self.config.read_text().partition("fsid = ")[2].split()[0]
        make = ["monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", addresses]
        _call([*make, monmap])
        keyring = str(self.folder / "keyring")
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
        done.touch()

    def _make_osd(self, number: str) -> None:
        folder = self.folder / "osd" / number
        done = self.folder / "osd" / f"{number}.made"
        if done.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        identity = str(uuid.uuid4())
        if number in self._ceph("osd", "ls").split():  # half made
            self._ceph("osd", "purge-new", number, "--yes-i-really-mean-it")
        self._ceph("auth", "import", "-i", str(self.folder / "keyring"))
        self._ceph("osd", "new", identity, number)
        self._run("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", identity)
        done.touch()

    def _make_bucket(self) -> None:
        done = self.folder / "bucket.made"
        if done.exists():
            return
        user = ["user", "create", "--uid=hashfs", "--display-name=hashfs"]
        keys = [f"--access-key={KEY}", f"--secret-key={SECRET}"]
        self._run("radosgw-admin", "-n", "client.rgw", *user, *keys)
        status = self._put_bucket()
        if status not in (200, 409):
            raise ClusterError(f"the gateway makes no bucket: {status}")
        done.touch()

    def _put_bucket(self) -> int:
        """Make the bucket by a request signed here, as no S3 client need be installed."""
        host = f"127.0.0.1:{self._ports()['s3']}"
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        names, empty = "host;x-amz-content-sha256;x-amz-date", hashlib.sha256(b"").hexdigest()
        headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": now}
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"PUT\n/{BUCKET}\n\n{lines}\n{names}\n{empty}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        key = b"AWS4" + SECRET.encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, "
            f"SignedHeaders={names}, Signature={key.hex()}"
        )
        connection = http.client.HTTPConnection(host, timeout=60)
        with contextlib.closing(connection):
            connection.request("PUT", f"/{BUCKET}", headers={**headers, "Content-Length": "0"})
            return connection.getresponse().status

    # -- asking ------------------------------------------------------------------------------

    def _ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads((self.folder / "ports.json").read_text())
        return ports

    def _osds_up(self) -> int:
        state = json.loads(self._ceph("osd", "stat", "-f", "json"))
        return int(state.get("osdmap", state)["num_up_osds"])

    def _gateway_answers(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._ports()["s3"], timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/")
                return connection.getresponse().status < 500
        except OSError:
            return False

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} did not start; see {self.folder}/log")
            time.sleep(0.2)

    def _ceph(self, *arguments: str) -> str:
        return self._run("ceph", "--connect-timeout", "60", *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        return _call([program, "-c", str(self.config), *arguments])


def install(packages: tuple[str, ...]) -> None:
    """Install Debian packages that are missing.

    Raises:
        ClusterError: Nobody here can.
    """
    missing = [name for name in packages if not _is_installed(name)]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ClusterError(f"not installed (needs apt-get and root): {' '.join(missing)}")
    policy = Path("/usr/sbin/policy-rc.d")  # no daemon is to start on its own
    made = not policy.exists()
    try:
        if made:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=180", "-o", "Acquire::Retries=3"]
        _call([*apt, "update"])
        _call([*apt, "install", "--no-install-recommends", "--yes", *missing])
    finally:
        if made:
            policy.unlink(missing_ok=True)


def _is_installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    query = ["dpkg-query", "--show", "--showformat", "${Status}", package]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout == "install ok installed"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _keyring_entry(name: str) -> str:
    key = struct.pack("<hiih", 1, int(time.time()), 0, 16) + os.urandom(16)
    lines = [f"[{name}]", f"\tkey = {base64.b64encode(key).decode()}"]
    lines += [f'\tcaps {kind} = "{what}"' for kind, what in CAPABILITIES[name].items()]
    return "\n".join(lines) + "\n"


def _call(command: list[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    # Daemons keep open what they inherit: files, not pipes, or this would wait for their end.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            check=False,
            env=environment,
        )
        out.seek(0)
        err.seek(0)
        text, errors = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} ended with {done.returncode}: {errors[-2000:]}")
    return text


def main() -> None:
    """Run a command of the command line."""
    parser = argparse.ArgumentParser(description="A real Ceph cluster in a folder.")
    parser.add_argument("command", choices=["start", "mount", "unmount", "stop"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path, nargs="?", help="where to mount CephFS")
    parser.add_argument("--wipe", action="store_true", help="delete the folder after a stop")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.folder)
    try:
        if arguments.command == "start":
            cluster.start()
            for name, value in cluster.environment().items():
                print(f"export {name}={value}")
        elif arguments.command == "mount":
            cluster.mount(arguments.target)
        elif arguments.command == "unmount":
            cluster.unmount(arguments.target)
        else:
            cluster.stop()
            if arguments.wipe and cluster.config.exists():
                shutil.rmtree(cluster.folder)
    except ClusterError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
