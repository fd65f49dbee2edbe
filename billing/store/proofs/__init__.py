"""SQL of reports and audit."""
