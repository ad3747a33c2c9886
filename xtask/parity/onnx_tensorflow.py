"""Networks as converters from TensorFlow write them, for `cargo xtask parity --onnx`; TensorFlow itself is not needed.

What such files have in common: images by rows, columns, channels, turned by a Transpose before the first convolution, with
preprocessing and padding of Keras in front of that; padding by `auto_pad` or with the odd row at the end; ReLU6 as Clip with
initialisers as bounds; fully connected layers as MatMul and Add; a Transpose back before what is made a vector; a Softmax at the
end. `MODELS` holds each by its name: who writes such a file, the size of its images, and a function that gives the ONNX model.
"""

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

CLASSES = 10


class Builder:
    """Nodes and initialisers; every method gives the name of the value it makes."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants = [], {}

    def constant(self, name: str, values, kind=np.float32) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(values, kind), name)
        return name

    def node(self, kind: str, name: str, *inputs: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}:0"], name=name, **attributes))
        return f"{name}:0"

    def conv(self, name: str, x: str, sizes: tuple[int, int], kernel: int, stride=1, groups=1, bias=True, **padding) -> str:
        inputs, outputs = sizes
        fan_in = inputs // groups * kernel**2
        shape = (outputs, inputs // groups, kernel, kernel)
        parameters = [self.constant(f"{name}/kernel", self.random.normal(0, (2 / fan_in) ** 0.5, shape))]
        if bias:
            parameters.append(self.constant(f"{name}/bias", self.random.normal(0, 0.1, outputs)))
        sizes = {"strides": [stride] * 2, "kernel_shape": [kernel] * 2, "group": groups, "dilations": [1, 1]}
        return self.node("Conv", name, x, *parameters, **sizes, **(padding or {"auto_pad": "SAME_UPPER"}))

    def norm(self, name: str, x: str, channels: int) -> str:
        parameters = {
            "gamma": self.random.uniform(0.5, 1.5, channels),
            "beta": self.random.normal(0, 0.1, channels),
            "moving_mean": self.random.normal(0, 0.1, channels),
            "moving_variance": self.random.uniform(0.5, 1.5, channels),
        }
        names = [self.constant(f"{name}/{key}", values) for key, values in parameters.items()]
        return self.node("BatchNormalization", name, x, *names, epsilon=1e-3)

    def relu6(self, name: str, x: str) -> str:
        return self.node("Clip", name, x, self.constant("zero", 0.0), self.constant("six", 6.0))

    def swish(self, name: str, x: str) -> str:
        return self.node("Mul", f"{name}/mul", x, self.node("Sigmoid", f"{name}/Sigmoid", x))

    def turn(self, name: str, x: str, perm: list[int]) -> str:
        return self.node("Transpose", name, x, perm=perm)

    def dense(self, name: str, x: str, inputs: int, outputs: int) -> str:
        kernel = self.constant(f"{name}/kernel", self.random.normal(0, (1 / inputs) ** 0.5, (inputs, outputs)))
        bias = self.constant(f"{name}/bias", self.random.normal(0, 0.1, outputs))
        return self.node("Add", f"{name}/BiasAdd", self.node("MatMul", f"{name}/MatMul", x, kernel), bias)

    def model(self, image: list, output: str, opset: int) -> ModelProto:
        inputs = [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, image)]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [image[0], CLASSES])]
        graph = helper.make_graph(self.nodes, "model", inputs, outputs, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
        checker.check_model(model)
        return model


TO_CHANNELS, FROM_CHANNELS = [0, 3, 1, 2], [0, 2, 3, 1]


def mobilenet_v2(size: int) -> ModelProto:
    """tf2onnx of a MobileNetV2 of Keras with its preprocessing inside: ZeroPadding2D in front of convolutions with step 2."""
    b = Builder(1)
    x = b.node("Mul", "rescaling/mul", "input_1", b.constant("scale", 1 / 127.5))
    x = b.node("Sub", "rescaling/sub", x, b.constant("offset", 1.0))
    x = b.node("Sub", "normalization/sub", x, b.constant("mean", [[[[0.1, 0.2, 0.3]]]]))
    x = b.node("Div", "normalization/div", x, b.constant("deviation", [1.1, 0.9, 0.8]))
    x = b.node("Pad", "Conv1_pad", x, b.constant("Conv1_pads", [0, 0, 0, 0, 0, 1, 1, 0], np.int64))
    x = b.turn("Conv1__6", x, TO_CHANNELS)
    x = b.conv("Conv1", x, (3, 16), 3, stride=2, bias=False, pads=[0, 0, 0, 0])
    x = b.relu6("Conv1_relu", b.norm("bn_Conv1", x, 16))
    channels = 16
    for index, (expansion, outputs, stride) in enumerate([(1, 8, 1), (6, 12, 2), (6, 12, 1), (6, 16, 2), (6, 16, 1)]):
        name, inner, y = f"block_{index}", channels * expansion, x
        if expansion > 1:
            y = b.relu6(f"{name}_expand_relu", b.conv(f"{name}_expand", y, (channels, inner), 1, pads=[0] * 4))
        if stride == 2:
            y = b.node("Pad", f"{name}_pad", y, b.constant(f"{name}_pads", [0, 0, 0, 0, 0, 0, 1, 1], np.int64))
        padding = [0] * 4 if stride == 2 else [1] * 4
        y = b.conv(f"{name}_depthwise", y, (inner, inner), 3, stride, groups=inner, pads=padding)
        y = b.conv(f"{name}_project", b.relu6(f"{name}_depthwise_relu", y), (inner, outputs), 1, pads=[0] * 4)
        x = b.node("Add", f"{name}_add", x, y) if (stride, channels) == (1, outputs) else y
        channels = outputs
    x = b.relu6("out_relu", b.conv("Conv_1", x, (channels, 64), 1, pads=[0] * 4))
    x = b.node("GlobalAveragePool", "global_average_pooling2d/Mean", x)
    x = b.node("Squeeze", "global_average_pooling2d/Squeeze", x, b.constant("axes", [2, 3], np.int64))
    x = b.node("Softmax", "predictions", b.dense("predictions", x, 64, CLASSES), axis=-1)
    return b.model(["unk__600", size, size, 3], x, 13)


def vgg(size: int) -> ModelProto:
    """tf2onnx of a VGG of Keras: its Flatten wants channels last again."""
    b, channels = Builder(2), 3
    x = b.turn("block0_conv0__6", "input_1", TO_CHANNELS)
    for block, outputs in enumerate([8, 16, 24]):
        for conv in range(2):
            name = f"block{block}_conv{conv}"
            x = b.node("Relu", f"{name}/Relu", b.conv(name, x, (channels, outputs), 3))
            channels = outputs
        x = b.node("MaxPool", f"block{block}_pool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    features = channels * (size // 8) ** 2
    x = b.turn("flatten__20", x, FROM_CHANNELS)
    x = b.node("Reshape", "flatten/Reshape", x, b.constant("flat", [-1, features], np.int64))
    x = b.node("Relu", "fc1/Relu", b.dense("fc1", x, features, 32))
    x = b.node("Softmax", "predictions", b.dense("predictions", x, 32, CLASSES))
    return b.model(["unk__9", size, size, 3], x, 15)


def efficientnet(size: int) -> ModelProto:
    """tf2onnx of an EfficientNet of Keras, where it left gates and the mean with channels last."""
    b, channels = Builder(3), 8
    x = b.turn("stem_conv__6", "input_1", TO_CHANNELS)
    x = b.swish("stem_activation", b.conv("stem_conv", x, (3, channels), 3, stride=2))
    for index, (outputs, stride) in enumerate([(12, 2), (12, 1), (16, 2), (16, 1)]):
        name, inner = f"block{index}", 4 * channels
        y = b.swish(f"{name}_expand_activation", b.conv(f"{name}_expand_conv", x, (channels, inner), 1))
        y = b.swish(f"{name}_activation", b.conv(f"{name}_dwconv", y, (inner, inner), 3, stride, groups=inner))
        gate = b.turn(f"{name}_se_squeeze__8", y, FROM_CHANNELS)
        gate = b.node("ReduceMean", f"{name}_se_squeeze/Mean", gate, axes=[1, 2], keepdims=0)
        shape = b.constant(f"{name}_se_shape", [-1, 1, 1, inner], np.int64)
        gate = b.turn(f"{name}_se_reduce__9", b.node("Reshape", f"{name}_se_reshape", gate, shape), TO_CHANNELS)
        gate = b.swish(f"{name}_se_reduce_activation", b.conv(f"{name}_se_reduce", gate, (inner, 4), 1))
        gate = b.node("Sigmoid", f"{name}_se_expand/Sigmoid", b.conv(f"{name}_se_expand", gate, (4, inner), 1))
        y = b.conv(f"{name}_project_conv", b.node("Mul", f"{name}_se_excite", y, gate), (inner, outputs), 1)
        x = b.node("Add", f"{name}_add", y, x) if (stride, channels) == (1, outputs) else y
        channels = outputs
    x = b.swish("top_activation", b.conv("top_conv", x, (channels, 48), 1))
    x = b.node("ReduceMean", "avg_pool/Mean", b.turn("avg_pool__10", x, FROM_CHANNELS), axes=[1, 2], keepdims=0)
    x = b.node("Softmax", "predictions", b.dense("predictions", x, 48, CLASSES))
    return b.model(["unk__1", size, size, 3], x, 13)


def mobilenet_v1(size: int) -> ModelProto:
    """tflite2onnx of a MobileNetV1: one image, activations taken out of the convolutions, a convolution as classifier."""
    b, channels = Builder(4), 8
    x = b.turn("input_nchw", "input_1", TO_CHANNELS)
    x = b.relu6("Relu6", b.conv("Conv2d_0", x, (3, channels), 3, stride=2))
    for index, (outputs, stride) in enumerate([(16, 1), (24, 2), (24, 1), (32, 2), (32, 1)]):
        name = f"Conv2d_{index + 1}"
        x = b.conv(f"{name}_depthwise", x, (channels, channels), 3, stride, groups=channels)
        x = b.conv(f"{name}_pointwise", b.relu6(f"{name}_depthwise/Relu6", x), (channels, outputs), 1, auto_pad="VALID")
        x, channels = b.relu6(f"{name}_pointwise/Relu6", x), outputs
    x = b.node("AveragePool", "AvgPool_1a", x, kernel_shape=[size // 8] * 2, strides=[2, 2], auto_pad="VALID")
    x = b.turn("Conv2d_1c_1x1_nhwc", b.conv("Conv2d_1c_1x1", x, (channels, CLASSES), 1), FROM_CHANNELS)
    x = b.node("Reshape", "Reshape_1", x, b.constant("shape", [1, CLASSES], np.int64))
    return b.model([1, size, size, 3], b.node("Softmax", "Softmax", x, axis=1), 11)


MODELS = {
    "keras/mobilenet_v2": ("tf2onnx", 64, mobilenet_v2),
    "keras/vgg": ("tf2onnx", 32, vgg),
    "keras/efficientnet": ("tf2onnx", 64, efficientnet),
    "tflite/mobilenet_v1": ("tflite2onnx", 64, mobilenet_v1),
}
