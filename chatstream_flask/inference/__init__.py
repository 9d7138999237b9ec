"""Everything that needs torch: from sequences to token ids."""
