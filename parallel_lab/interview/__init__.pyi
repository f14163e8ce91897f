# One line a module, in the order of the alphabet; `__all__` as well.
__all__: list[str] = []
