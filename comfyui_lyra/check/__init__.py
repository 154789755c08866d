"""Will it work here, and with these files? Checks of the machine, of files, and of models at their first use."""
