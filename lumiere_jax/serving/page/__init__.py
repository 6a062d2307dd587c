"""The page of a server, in Gradio, which calls the HTTP interface as any other client does."""
