"""What every room uses: errors and exit codes, files, progress, tables, worker processes. Imports no other room."""
