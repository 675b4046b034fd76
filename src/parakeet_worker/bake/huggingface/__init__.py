"""Pinned files of the Hugging Face hub. Imports only `http`, so that an image's download is a layer of its own."""
