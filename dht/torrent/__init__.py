"""BitTorrent: a file from everybody who has a part of it (README.md is the chapter)."""
