"""The dashboard: one page of plain HTML, CSS and ES modules (`static/`), and how it is handed out (`files`).

The page holds no data and no key: it asks the API for everything, as any client would, and shows text from outside only as text.
No build step, no other host. `static/main.js` is the map of its modules.
"""
