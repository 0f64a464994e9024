"""The page about one run: what was asked, what broke, and what the verdict rests on."""
