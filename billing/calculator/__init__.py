"""Calculators that apply usage to the accounts of one partition: the plain one and the compiled one."""
