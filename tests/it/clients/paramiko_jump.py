"""paramiko over a jump, as Fabric's gateway and Ansible do it: each hop by a key, and none without one."""

import os
import paramiko

env = os.environ
login, device = env["NAME"].split("+")
key_type, blob = env["HOST_KEY"].split()[:2]
entry = paramiko.hostkeys.HostKeyEntry.from_line(f"[{env['HOST']}]:{env['PORT']} {key_type} {blob}")
outer = paramiko.SSHClient()
outer.get_host_keys().add(entry.hostnames[0], key_type, entry.key)
outer.connect(
    env["HOST"], int(env["PORT"]), "operator", key_filename=env["KEY"],
    allow_agent=False, look_for_keys=False, timeout=20,
)


def inner(key):
    channel = outer.get_transport().open_channel("direct-tcpip", (device, 22), ("127.0.0.1", 1), timeout=20)
    client = paramiko.SSHClient()
    # The device's name has a certified key, which paramiko does not check by its authority.
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        device, 22, login, key_filename=key, sock=channel,
        allow_agent=False, look_for_keys=False, timeout=20,
    )
    return client


with inner(env["KEY"]) as client:
    assert client.exec_command("echo inside", timeout=20)[1].read() == b"inside\n"
try:
    inner(os.path.join(os.path.dirname(env["KEY"]), "other"))
except paramiko.AuthenticationException:
    pass
else:
    raise AssertionError("another user's key was taken")
# The connection around it is as good as before.
with inner(env["KEY"]) as client:
    assert client.exec_command("echo again", timeout=20)[1].read() == b"again\n"
outer.close()
print("done")
