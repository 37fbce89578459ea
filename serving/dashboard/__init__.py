"""The dashboard: one page of plain HTML, CSS and ES modules (`static/`), and how it is served (`files`).

The page contains no data and no key: it requests everything from the API, like any other client, and never interprets
external text as HTML. There is no build step, and nothing is loaded from another host. `static/main.js` lists its modules.
"""
