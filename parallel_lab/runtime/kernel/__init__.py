"""What runs in the kernel during a launch, and the fork server beside it. Four channels lead from there to the ranks.

    kernel                      fork server                 rank (one for each)
    forkserver ──(1) requests──> server ──────fork────────> rank.main
    watch <──(2) status────────── server <────exit code──── rank.main
    watch <──(3) messages─────────────────────────────────> rank.main
    output <─(4) printing────────────────────────────────── rank's stdout and stderr

    1  a socket: a launch's folder, descriptors attached: fork these ranks
    2  a socket: exit codes; when the kernel closes it, the ranks are ended
    3  a socket of pickles (`runtime.wire`): where are you? progress, the result with its trace, or the exception
    4  a socket of text

What must be there after a rank's death lies in the folder of the launch: the job, each rank's last calls, and the stack
that faulthandler wrote. From these `diagnose` finds what is wrong, and `report` says it in the learner's words.
"""
