"""`make cluster`: the servers of several machines, on the loopback interface of one."""
