"""What lessons share: their list (`curriculum`), their runs' settings (`settings`), and JupyterLab's (`labconfig`)."""
