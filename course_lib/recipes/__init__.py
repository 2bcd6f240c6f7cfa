"""Settings and scripts of whole runs: how shipped models were made, what lessons train. May import all rooms."""
