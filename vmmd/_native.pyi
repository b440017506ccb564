from typing import Any, TypeAlias

ffi: Any
lib: Any

# A C object of cffi's. For annotations only: it is no name at run time.
CData: TypeAlias = Any
