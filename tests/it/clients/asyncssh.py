"""asyncssh: many sessions on one connection, a signal, files, forwards; and what an editor does all day."""

import asyncio, os
import asyncssh

env = os.environ


async def connect():
    line = f"[{env['HOST']}]:{env['PORT']} {env['HOST_KEY']}\n"
    return await asyncssh.connect(
        env["HOST"], int(env["PORT"]), username=env["NAME"], client_keys=[env["KEY"]], config=None,
        known_hosts=asyncssh.import_known_hosts(line), rekey_bytes=1 << 20,
    )


async def library():
    async with await connect() as ssh:
        data = os.urandom(1_000_000)
        echoed = await ssh.run("cat", input=data, encoding=None, check=True)
        assert echoed.stdout == data
        results = await asyncio.gather(*(ssh.run(f"echo {n}; exit {n}") for n in range(20)))
        assert [(r.stdout, r.exit_status) for r in results] == [(f"{n}\n", n) for n in range(20)]
        process = await ssh.create_process("exec sleep 600")
        process.send_signal("TERM")
        ended = await process.wait()
        assert ended.exit_signal[0] == "TERM", ended.exit_signal
        async with ssh.start_sftp_client() as sftp:
            path = os.path.join(env["FOLDER"], "asyncssh")
            await sftp.makedirs(path + "/a/b")
            async with sftp.open(path + "/a/b/c", "wb") as file:
                await file.write(data)
            async with sftp.open(path + "/a/b/c", "rb") as file:
                assert await file.read() == data
            await sftp.rmtree(path)


async def upper(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
    writer.close()


async def editor():
    """One connection: a server that runs for as long, `-D`, and short commands all the time."""
    target = await asyncio.start_server(upper, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    async with await connect() as ssh:
        server = await ssh.create_process("cat")
        socks = await ssh.forward_socks("127.0.0.1", 0)

        async def over_socks(number):
            reader, writer = await asyncio.open_connection("127.0.0.1", socks.get_port())
            writer.write(b"\x05\x01\x00")
            assert await reader.readexactly(2) == b"\x05\x00"
            writer.write(b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big"))
            answer = await reader.readexactly(4)
            assert answer[1] == 0, answer
            await reader.readexactly(6 if answer[3] == 1 else 18)
            writer.write(f"page {number}\n".encode())
            assert await reader.readline() == f"PAGE {number}\n".encode()
            writer.close()

        async def short(number):
            result = await ssh.run(f"test -d /proc && echo {number}")
            assert result.stdout == f"{number}\n"

        async def chatter():
            for number in range(40):
                server.stdin.write(f"ping {number}\n")
                assert await server.stdout.readline() == f"ping {number}\n"

        async def upload():
            async with ssh.start_sftp_client() as sftp:
                for number in range(20):
                    path = os.path.join(env["FOLDER"], f"editor-{number}")
                    async with sftp.open(path, "wb") as file:
                        await file.write(b"x" * 20_000)
                    await sftp.remove(path)

        work = [chatter(), upload()]
        work += [short(number) for number in range(20)]
        work += [over_socks(number) for number in range(20)]
        await asyncio.gather(*work)
        server.stdin.write_eof()
        assert (await server.wait()).exit_status == 0


asyncio.run(asyncio.wait_for(library() if env.get("WHAT") != "editor" else editor(), 50))
print("done")
