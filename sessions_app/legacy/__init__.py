"""Taking over what the replaced service stored: its database is read, and never written."""
