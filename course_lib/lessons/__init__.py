"""What lessons share: their list (`curriculum`) and the settings of their runs (`settings`)."""
