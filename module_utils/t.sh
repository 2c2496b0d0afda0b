t () 
{ 
    /tmp/w/s "cd /root/gx && python3 py/b.py '$1' >/dev/null && bash boot.sh /root/gx/out.qcow2 20 '$2' | grep -aE 'wall|booted|ready'; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.5; grep -a ready con.log && break; done; kill \$(cat pid)"
}
