"""The parts that every backend shares, such as the layout, the writer and the spool."""
