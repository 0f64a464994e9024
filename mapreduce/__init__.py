"""Jobs over many workers that finish whatever is killed."""
