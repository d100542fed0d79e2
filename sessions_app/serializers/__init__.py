"""Between rows and the wire: what comes in is checked here, what goes out is shaped (and documented) here."""
