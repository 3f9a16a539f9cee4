"""Log records -> paths. Pure and columnar."""
