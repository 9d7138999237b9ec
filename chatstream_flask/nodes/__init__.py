"""What several servers of one app share through Redis: their running replies, visitors' limits and turns."""
