"""The demo as a newcomer sees it: `make tour` walks through it in a browser, for docs/TOUR.md."""
