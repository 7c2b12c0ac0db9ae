# SPDX-License-Identifier: Apache-2.0
"""Play a bag with `ros2 bag play`, detect objects in its images, and record the result."""
from pathlib import Path
import signal

from forecast_detector_ros.cli.graph import profile_environment
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import matches_action, Shutdown
from launch.events.process import ProcessExited, ProcessIO, SignalProcess
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'forecast_detector_ros'

# These are passed to detector.launch.py unchanged.
DETECTOR_ARGUMENTS = ('params_file', 'namespace', 'image_transport', 'threshold', 'device',
                      'backend', 'checkpoint', 'use_sim_time')

# Log messages of recorder and detector after they have subscribed; then the bag is played.
READY = {'recorder_node': b'recording ', 'detector_node': b'active: '}

# Time from the player's start to its first message, s, so that all subscriptions are matched
# before. Fast DDS repeats a missed announcement after 3 s (leaseDuration_announcementperiod of its
# DiscoverySettings).
DELAY_S = 5.0

# Time from the player's end to the end of a recorder that received no image, s.
PATIENCE_S = 15.0


def arguments() -> list[DeclareLaunchArgument]:
    """Return the launch arguments with their descriptions."""
    described = {
        'image_topic': ('/image_raw', 'Base topic of the images in the bag; compressed images are '
                        'on <image_topic>/compressed'),
        'output': ('replay_recording', 'Folder for annotated.mkv and the bag of detections and '
                   'decisions; it must not have a recording yet'),
        'play_rate': ('1.0', 'Speed of the playback; below 1.0: slower than recorded'),
        'play_arguments': ('', 'Further arguments for ros2 bag play, separated by spaces'),
        'namespace': ('', 'Namespace of detector and recorder; image_topic stays as it is'),
        'threshold': ('', 'An image is forecast if the confidence is above this, 0.0 to 1.0; '
                      'empty: as in params_file, or else as the checkpoint recommends'),
        'device': ('', 'Where the network runs: auto, cpu, cuda or cuda:N; empty: as in '
                   'params_file'),
        'backend': ('', 'Back-end of the network: auto (the fastest installed one), openvino, '
                    'onnxruntime, torch, torch_compile or tensorrt; empty: as in '
                    'params_file'),
        'checkpoint': ('', 'Weights: small, default, large, or a .safetensors with its .yaml card '
                       'beside it; empty: as in params_file, or else default'),
    }
    return [
        DeclareLaunchArgument('bag', description='Folder or file of the bag'),
        DeclareLaunchArgument(
            'image_transport', default_value='raw', choices=['raw', 'compressed'],
            description='Images of the bag: raw (Image) or compressed (CompressedImage)'),
        DeclareLaunchArgument(
            'reliability', default_value='best_effort', choices=['best_effort', 'reliable'],
            description='Reliability of the recorder: best_effort works with every bag, '
            'reliable loses no image of a reliable camera'),
        DeclareLaunchArgument(
            'use_sim_time', default_value='true', choices=['true', 'false'],
            description='Take the time from the bag (ros2 bag play --clock), so that ages and '
            'times in the result are those of the recording'),
        DeclareLaunchArgument(
            'params_file', default_value=PathJoinSubstitution(
                [FindPackageShare(PACKAGE), 'config', 'detector.yaml']),
            description='YAML file with the parameters of the detector'),
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in described.items()),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the actions that start detector and recorder, and then the player."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=replay)])


def replay(context: LaunchContext) -> list[Action]:
    """Return the processes and event handlers; raises RuntimeError if there is no bag."""
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    bag = Path(given('bag')).expanduser()
    if not bag.exists():
        raise RuntimeError(f'bag: {bag}: no such file or folder')
    topic = '/' + given('image_topic').strip('/')
    images = topic + '/compressed' * (given('image_transport') == 'compressed')
    sim_time = given('use_sim_time') == 'true'
    player = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', str(bag), '--rate', given('play_rate'),
             '--delay', str(DELAY_S), *(['--clock'] if sim_time else []),
             *given('play_arguments').split()],
        output='screen', additional_env=profile_environment())
    recorder = Node(
        package=PACKAGE, executable='recorder_node', name='recorder',
        namespace=given('namespace'), output='screen', sigterm_timeout='30',
        remappings=[('image_raw', topic), ('image_raw/compressed', f'{topic}/compressed')],
        parameters=[{
            'image_transport': given('image_transport'),
            'output': ParameterValue(given('output'), value_type=str),
            'stop_with_camera': True, 'use_sim_time': sim_time,
            f'qos_overrides.{images}.subscription.reliability': given('reliability')}])
    detector = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution(
            [FindPackageShare(PACKAGE), 'launch', 'detector.launch.py'])),
        launch_arguments={
            **{name: given(name) for name in DETECTOR_ARGUMENTS},
            # READY needs the level info.
            'image_topic': topic, 'autostart': 'true', 'log_level': 'info'}.items())
    start = _Start(player)
    return [
        RegisterEventHandler(OnProcessIO(on_stdout=start, on_stderr=start)),
        RegisterEventHandler(OnProcessExit(target_action=recorder, on_exit=[
            EmitEvent(event=Shutdown(reason='the recording is finished'))])),
        RegisterEventHandler(OnProcessExit(on_exit=_end_after_failure)),
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[TimerAction(
            period=PATIENCE_S, actions=[
                LogInfo(msg=f'the bag has ended, the recording has not: either no image came on '
                            f'{images} (see image_topic, image_transport), or others publish it'),
                # A shutdown would kill a recorder that is still writing.
                EmitEvent(event=SignalProcess(
                    signal_number=signal.SIGINT, process_matcher=matches_action(recorder)))])])),
        detector, recorder]


class _Start:
    """Starts the player once recorder and detector have subscribed."""

    def __init__(self, player: ExecuteProcess) -> None:
        self._player = player
        self._waiting = dict(READY)

    def __call__(self, event: ProcessIO) -> list[Action]:
        """Return the player after the last expected message, else nothing."""
        if not self._waiting:
            return []
        for name, words in list(self._waiting.items()):
            if event.process_name.startswith(name) and words in event.text:
                del self._waiting[name]
        return [] if self._waiting else [self._player]


def _end_after_failure(event: ProcessExited, _context: LaunchContext) -> list[Action]:
    if event.returncode == 0:
        return []
    return [EmitEvent(event=Shutdown(reason=f'{event.process_name} failed'))]
