"""How fast this project is, measured beside what people do today; `make bench` runs it."""
