"""Serving: embedders behind the HTTP interfaces that clients already speak; extra `serve`.

    request -> Guard -> route -> Service -> Batcher -> model thread
               limits   one file  names,    one queue   compute
               keys     per API   limits    per model

`create_app` makes the ASGI application, `run` serves it. See docs/serving.md.
"""

from importlib.util import find_spec

from echovec.errors import DependencyError

if missing := [name for name in ("fastapi", "uvicorn", "prometheus_client") if not find_spec(name)]:
    raise DependencyError(
        f"serving needs {', '.join(missing)}; install it with: pip install 'echovec[serve]'"
    )
