"""ResNet-18 on ImageNet at 4, 3 or 2 bits with learned step sizes (LSQ, Esser et al., arXiv 1902.08153), or in float.

    python -m plq.main --config configs/imagenet_resnet18.py:float --workdir runs/float18
    python -m plq.main --config configs/imagenet_resnet18.py:w2a2 --config.model.init_from=runs/float18  (w4a4, w3a3)

LSQ's recipe: pre-activation network, started from the one trained in float; first and last weights at 8 bits; 90 epochs
(450,360 steps) of SGD, batch 256, lr 0.01 (float 0.1) along a cosine, weight decay 1e-4, halved at 3 bits and once more
at 2. Not LSQ's: the branch, with f along a cosine to 0 at a quarter of the run (--config.factor.name=constant takes it
away), and that the last layer's input is in float.

Hardware, time: not yet run. Accuracy: not yet run; published for LSQ in its own code: 71.1, 70.2, 67.6 % at 4, 3, 2
bits.
"""

from plq.config.load import default

ARGUMENTS = ("w4a4", "w3a3", "w2a2", "float")
WEIGHT_DECAY = {"w2a2": 0.25e-4, "w3a3": 0.5e-4}


def get_config(argument=ARGUMENTS[0]):
    config = default()
    config.data.name = "imagenet2012"
    config.data.crop = "resized"
    config.data.image_size = 224
    config.data.flip = True
    config.data.batch_size = 256
    config.data.mean = (123.675, 116.28, 103.53)
    config.data.std = (58.395, 57.12, 57.375)
    config.model.name = "resnet18"
    config.model.block = "pre"
    if argument == "float":
        config.quant.weight_bits = config.quant.activation_bits = 32
        config.quant.activations = "relu"
        config.factor.name = "constant"
    else:
        config.quant.weight_bits = config.quant.activation_bits = int(argument[-1])
        config.quant.weights = config.quant.activations = "lsq"
        config.quant.first_bits = config.quant.last_bits = 8
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1 if argument == "float" else 0.01
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = WEIGHT_DECAY.get(argument, 1e-4)
    config.optimizer.decay = "l2"
    config.train.epochs = 90.0
    config.report.every_steps = 100
    return config
