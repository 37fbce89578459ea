"""What goes over the wire: the documents of requests, answers and problems."""
