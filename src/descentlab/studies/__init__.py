"""What the scripts of experiments/ share, and the report."""
