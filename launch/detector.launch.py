# SPDX-License-Identifier: Apache-2.0
"""Start the detector node and bring it to active."""
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'forecast_detector_ros'

TRUTH = ['true', 'false', 'True', 'False']

# Arguments that override the parameter of the same name if they are given.
OVERRIDES = {'image_transport': str, 'threshold': float, 'device': str, 'backend': str,
             'checkpoint': str, 'publish_ahead': bool, 'use_sim_time': bool}


def arguments() -> list[DeclareLaunchArgument]:
    """Return the launch arguments with their descriptions."""
    return [
        DeclareLaunchArgument(
            'params_file', default_value=PathJoinSubstitution(
                [FindPackageShare(PACKAGE), 'config', 'detector.yaml']),
            description='YAML file with the parameters of the node'),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the node and its topics'),
        DeclareLaunchArgument(
            'image_topic', default_value='',
            description='Base topic of the camera; empty: image_topics of params_file'),
        DeclareLaunchArgument(
            'image_transport', default_value='', choices=['', 'raw', 'compressed'],
            description='raw, or compressed on <image_topic>/compressed; empty: as in '
                        'params_file'),
        DeclareLaunchArgument(
            'threshold', default_value='',
            description='An image is forecast if the confidence is above this, 0.0 to 1.0; '
                        'empty: as in params_file, or else as the checkpoint recommends'),
        DeclareLaunchArgument(
            'device', default_value='',
            description='Where the network runs: auto, cpu, cuda or cuda:N; empty: as '
                        'in params_file'),
        DeclareLaunchArgument(
            'backend', default_value='',
            description='Back-end of the network: auto (the fastest installed one), openvino, '
                        'onnxruntime, torch, torch_compile or tensorrt; empty: as in params_file'),
        DeclareLaunchArgument(
            'checkpoint', default_value='',
            description='Weights: small, default, large, or a .safetensors with its .yaml card '
                        'beside it; empty: as in params_file, or else default'),
        DeclareLaunchArgument(
            'publish_ahead', default_value='', choices=['', *TRUTH],
            description='Publish on detections_ahead the detections expected one period later: '
                        'true or false; empty: as in params_file'),
        DeclareLaunchArgument(
            'use_sim_time', default_value='', choices=['', *TRUTH],
            description='Take the time from /clock: true or false; empty: as in params_file'),
        DeclareLaunchArgument(
            'autostart', default_value='true', choices=TRUTH,
            description='Configure and activate the node; false: leave that to a lifecycle '
                        'manager'),
        DeclareLaunchArgument(
            'use_respawn', default_value='false', choices=TRUTH,
            description='Start the node again two seconds after its end'),
        DeclareLaunchArgument(
            'log_level', default_value='info', description='debug, info, warn, error or fatal'),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the detector node with its arguments."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=detector)])


def detector(context: LaunchContext) -> list[Action]:
    """Return the node, with the given arguments as parameters; raises RuntimeError."""
    given = {name: LaunchConfiguration(name).perform(context) for name in (
        'namespace', 'image_topic', 'autostart', 'use_respawn', 'log_level', *OVERRIDES)}
    if given['threshold'] and not _is_number(given['threshold']):
        raise RuntimeError(f"threshold: '{given['threshold']}' is no number; it is 0.0 to 1.0")
    parameters = LaunchConfiguration('params_file').perform(context)
    if not Path(parameters).is_file():
        raise RuntimeError(f'params_file: {parameters}: no such file')
    # The node activates itself, because launch_ros of Jazzy cannot do it.
    overrides = {'autostart': given['autostart'].lower() == 'true'}
    if given['image_topic']:
        overrides['image_topics'] = [given['image_topic']]
    for name, kind in OVERRIDES.items():
        if given[name]:
            overrides[name] = ParameterValue(LaunchConfiguration(name), value_type=kind)
    return [Node(
        package=PACKAGE, executable='detector_node', name='forecast_detector',
        namespace=given['namespace'], output='screen',
        parameters=[LaunchConfiguration('params_file'), overrides],
        ros_arguments=['--log-level', given['log_level']],
        respawn=given['use_respawn'].lower() == 'true', respawn_delay=2.0,
        # The node handles a signal only after loading, which is slow on a busy machine.
        sigterm_timeout='20')]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
