"""The dashboard: one page of plain HTML, CSS and ES modules (`static/`), and how it is served (`files`).

The page contains no data and no key: it requests everything from the API, as any client would, and shows text from
outside only as text. There is no build step and no other host. `static/main.js` is the map of its modules.
"""
