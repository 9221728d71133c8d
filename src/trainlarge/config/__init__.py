"""What can be configured: the schema of ``conf/``, values with units, recipes."""
