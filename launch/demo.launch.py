# SPDX-License-Identifier: Apache-2.0
"""Play a video as a camera, detect objects in it, and record the result."""
from forecast_detector_ros.cli.graph import profile_environment
from forecast_detector_ros.files import bundled_clip
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'forecast_detector_ros'

# These are passed to detector.launch.py unchanged.
DETECTOR_ARGUMENTS = ('namespace', 'image_transport', 'threshold', 'device', 'backend',
                      'checkpoint', 'log_level')


def arguments() -> list[DeclareLaunchArgument]:
    """Return the launch arguments with their descriptions."""
    try:
        clip = {'default_value': str(bundled_clip())}
    except FileNotFoundError:
        clip = {}
    described = {
        'rate': ('0.0', "Frames per second; 0.0: the video's rate"),
        'loop': ('false', 'Repeat the video until the launch is interrupted'),
        'output': ('demo_recording', 'Folder for annotated.mkv and the bag; it must not have a '
                   'recording yet'),
        'namespace': ('', 'Namespace of all three nodes'),
        'threshold': ('', 'An image is forecast if the confidence is above this, 0.0 to 1.0; '
                      'empty: as the checkpoint recommends'),
        'device': ('', 'Where the network runs: auto, cpu, cuda or cuda:N; empty: auto'),
        'backend': ('', 'Back-end of the network: auto (the fastest installed one), openvino, '
                    'onnxruntime, torch, torch_compile or tensorrt; empty: auto'),
        'checkpoint': ('', 'Weights: small, default, large, or a .safetensors with its .yaml card '
                       'beside it; empty: default'),
        'log_level': ('info', 'debug, info, warn, error or fatal'),
    }
    return [
        DeclareLaunchArgument(
            'video', description='Video file, folder of images, or V4L2 device', **clip),
        DeclareLaunchArgument(
            'image_transport', default_value='raw', choices=['raw', 'compressed'],
            description='Transport of the images: raw or compressed'),
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in described.items()),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the actions that start camera, detector and recorder."""
    setting = LaunchConfiguration
    common = {
        'package': PACKAGE, 'namespace': setting('namespace'), 'output': 'screen',
        'ros_arguments': ['--log-level', setting('log_level')]}
    transport = {'image_transport': setting('image_transport')}
    camera = Node(
        executable='camera_node', name='camera', additional_env=profile_environment(),
        parameters=[{
            **transport,
            # The detector and the recorder.
            'wait_for_subscribers': 2,
            'source': ParameterValue(setting('video'), value_type=str),
            'rate': ParameterValue(setting('rate'), value_type=float),
            'loop': ParameterValue(setting('loop'), value_type=bool)}], **common)
    recorder = Node(
        executable='recorder_node', name='recorder', sigterm_timeout='30',
        parameters=[{
            **transport,
            'stop_with_camera': True,
            'output': ParameterValue(setting('output'), value_type=str),
            'rate': ParameterValue(setting('rate'), value_type=float)}], **common)
    detector = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution(
            [FindPackageShare(PACKAGE), 'launch', 'detector.launch.py'])),
        launch_arguments={
            **{name: setting(name) for name in DETECTOR_ARGUMENTS},
            'image_topic': 'image_raw', 'autostart': 'true'}.items())
    return LaunchDescription([
        *arguments(), detector, recorder, camera,
        RegisterEventHandler(OnProcessExit(on_exit=_end_after_failure)),
        RegisterEventHandler(OnProcessExit(target_action=recorder, on_exit=[
            EmitEvent(event=Shutdown(reason='the recording is finished'))])),
    ])


def _end_after_failure(event: ProcessExited, _context: LaunchContext) -> list[Action]:
    """End the launch if a node failed, because the others would wait for it."""
    if event.returncode == 0:
        return []
    return [EmitEvent(event=Shutdown(reason=f'{event.process_name} failed'))]
