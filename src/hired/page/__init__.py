"""The local page of ``hired page``: a picture, a question and a budget, and what becomes of them.

`reader` answers and knows no page; `tabs` keeps one picture for each open tab; `words` writes what is shown;
`interface` puts it together with Gradio, and `server` serves it.
"""
