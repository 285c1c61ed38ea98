"""The recipe of the embedded models: `python -m recipes.embedded reasoner|segmenter|vlsm`.

reasoner.py     trains the reasoner: its configuration and its loop
  examples.py   training examples: a scene with its prompts and true replies
  marks.py      numbered candidate marks on a scene
  replies.py    the true reply to a query, for every strategy
  tokenizer.py  the tokenizer; prompts and replies as tensors
  model.py      the architecture, its export, and loading it for fine-tuning
  trainer.py    model and auxiliary heads together; the loss of a batch
  losses.py     the losses as pure functions
  comparison.py the same training with Qwen3-VL's architecture
segmenter.py    trains the segmenter: its architecture, configuration and loop
  crops.py      training samples: crops around objects, with box or point prompts
vlsm.py         trains the VLSM with `rsvp.training`
familiarity.py  fits the classifier that tells images unlike the scenes
loop.py         optimisers, learning rate, checkpoint and log of both loops
install.py      copies trained models into the package
sprites.py      builds the sprites and the vocabulary of the scenes
"""
