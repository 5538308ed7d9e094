"""ImageNet at 4 bits: ResNet-18, the network that most few-bit results are given for, with DoReFa, from scratch.

    python -m plq.main --config configs/imagenet_w4a4.py

90 epochs (450,360 steps) of SGD, batch 256, lr 0.1 along a cosine; pre-activation blocks, whose stream stays in float
(as Bi-Real Net argues for one bit, arXiv 1808.00278); f along a cosine to 0 at a quarter of the run; first and last
layer in full precision. Other bits, and the learned step sizes of LSQ, are in imagenet_resnet18.py.

Hardware, time: not yet run on the whole of ImageNet. Accuracy: not yet run; published for DoReFa in this network at 4
bits, in its own code: 68.1 %.
"""

from plq.config.load import default


def get_config():
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
    config.quant.weight_bits = 4
    config.quant.activation_bits = 4
    config.quant.activations = "clip"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = 0.05
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = "l2"
    config.train.epochs = 90.0
    config.report.every_steps = 100
    return config
