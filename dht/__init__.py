"""A distributed hash table of peers, and files shared by many: Chord and BitTorrent."""
