"""The cache: a folder of this machine before a store that is not on its disk."""
