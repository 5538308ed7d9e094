"""ResNet-18 at 4, 3 or 2 bits, or in float, on your own pictures: a folder with a folder of images for each class.

    python -m plq.main --config configs/folder.py:w4a4 --config.data.data_dir=photos      (w3a3, w2a2, float)

A copy of this file is a good start for a config of your own; what to change first stands beside the fields.

Hardware, time, accuracy: depend on the pictures; not yet run.
"""

from plq.config.load import default

ARGUMENTS = ("w4a4", "w3a3", "w2a2", "float")


def get_config(argument=ARGUMENTS[0]):
    config = default()
    config.data.name = "folder"
    config.data.crop = "resized"  # random parts of each picture; "": all of it, resized, the set whole in memory
    config.data.image_size = 128  # what the network sees; 224 shows more and takes three times the work
    config.data.flip = True  # False where left and right differ, as with writing
    config.data.batch_size = 64  # at most the number of training images
    config.data.mean, config.data.std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of photographs
    config.model.name = "resnet18"  # mobilenet_v2 is smaller; svhn takes grey images of 40x40
    config.model.block = "pre"
    config.quant.weight_bits = config.quant.activation_bits = 32 if argument == "float" else int(argument[-1])
    config.quant.activations = "relu" if argument == "float" else "clip"
    config.factor.name = "constant" if argument == "float" else "cosine"
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 0.05
    config.optimizer.schedule, config.optimizer.warmup = "cosine", 0.05
    config.optimizer.weight_decay, config.optimizer.decay = 1e-4, "l2"
    config.train.epochs = 60.0  # more for fewer pictures
    return config
