"""Serving: embedders behind the HTTP interfaces that clients already speak; extra `serve`.

    request -> Guard -> route -> Service -> Batcher -> model thread
               limits   one file  names,    one queue   compute
               keys     per API   limits    per model

`create_app` makes the ASGI application, `run` serves it. See docs/serving.md.
"""
