"""Plain PEFT folders: their files, the base model that they name, and the manifest that is made for them."""
