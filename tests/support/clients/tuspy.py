"""Uploads a file by tuspy: python tuspy.py ENDPOINT FILE"""

import sys

from tusclient.client import TusClient

endpoint, path = sys.argv[1:]
uploader = TusClient(endpoint).uploader(path, retries=100, retry_delay=0.05)
uploader.upload()
print(uploader.url)
