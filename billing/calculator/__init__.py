"""Application of usage to the memory of a partition: the plain calculator and the compiled one."""
