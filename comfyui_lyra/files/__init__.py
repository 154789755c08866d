"""Files in and out, one format a file. Logits, logarithms, SH band 0 and other people's axes exist only here."""
