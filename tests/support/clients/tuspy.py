"""Uploads a file by tuspy: python tuspy.py ENDPOINT FILE"""

import sys

from tusclient.client import TusClient

# tuspy begins to count its retries anew only once a request has succeeded, however far each got.
# So a request is short enough for some connections to last, though most do not.
PIECE = 1408 * 1024

endpoint, path = sys.argv[1:]
uploader = TusClient(endpoint).uploader(path, chunk_size=PIECE, retries=100, retry_delay=0.05)
uploader.upload()
print(uploader.url)
