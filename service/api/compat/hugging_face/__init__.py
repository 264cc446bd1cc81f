"""The routes in the form of Hugging Face's inference API, and generated text in that form."""
