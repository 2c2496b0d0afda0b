#!/bin/bash
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
#
# Deploys the same cloud by hand, for `make bench` to compare with site.yml: the fewest commands from a bare Debian 13
# host to a guest that answers ping. Written to be fast: no checks, no second run, no needless waiting, one password for
# everything. For disposable hosts only.
#
#   baseline.sh IMAGE      as root on the host; IMAGE is the test image, in qcow2
#
# Prints "### SECONDS STAGE" at the start of each stage, in seconds since the start of the script.
set -euo pipefail
image=$1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
begin=$EPOCHREALTIME
stage() { awk -v now="$EPOCHREALTIME" -v begin="$begin" -v name="$*" 'BEGIN { printf "### %.2f %s\n", now - begin, name }'; }
# Merge sections and options from standard input into a file of a package.
configure() { crudini --merge "$1"; }
as() { su -s /bin/sh -c "$2" "$1"; }

packages="
 mariadb-server rabbitmq-server memcached python3-pymysql python3-memcache crudini
 keystone glance-api placement-api nova-api nova-conductor nova-scheduler nova-consoleproxy novnc
 nova-compute nova-compute-qemu qemu-system-x86 qemu-utils libvirt-clients
 neutron-api neutron-ovn-metadata-agent ovn-central ovn-host openvswitch-switch
 bridge-utils nftables python3-openstackclient python3-openstacksdk
"

# Addresses and capabilities of this host. In a container, only loaded kernel modules are visible.
read -r _ _ gateway _ interface _ address _ < <(ip -o route get 203.0.113.1)
prefix=$(ip -o -4 address show dev "$interface" | awk '{ sub(".*/", "", $4); print $4 }')
datapath=netdev
[ ! -d /sys/module/openvswitch ] && ! modprobe -q openvswitch || datapath=system
hypervisor=qemu cpu_mode=none
[ ! -w /dev/kvm ] || hypervisor=kvm cpu_mode=host-model

stage packages
# Without this, daemons without configuration would start and fail repeatedly during the installation.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/baseline
printf 'path-exclude=/usr/share/%s/*\n' man doc >>/etc/dpkg/dpkg.cfg.d/baseline
apt-get update -q >/dev/null
# shellcheck disable=SC2086 # a list
apt-get install -y -q --no-install-recommends $packages >/root/baseline-apt.log 2>&1
rm /usr/sbin/policy-rc.d

stage bridge
sysctl -q -w net.ipv4.ip_forward=1
cat >/etc/network/interfaces <<END
auto lo
iface lo inet loopback
auto $interface
iface $interface inet manual
auto br0
iface br0 inet static
  address $address/$prefix
  gateway $gateway
  bridge_ports $interface
  bridge_stp off
  bridge_fd 0
  bridge_maxwait 0
  post-up ip address add 192.168.1.1/24 dev br0
  post-up ip link add br0-ovs type veth peer name ovs-br0
  post-up ip link set br0-ovs master br0 up
  post-up ip link set ovs-br0 up
END
ip address flush dev "$interface"
systemctl restart networking
nft -f - <<END
table ip baseline {
  chain postrouting {
    type nat hook postrouting priority 100
    ip saddr 192.168.1.0/24 ip daddr != 192.168.1.0/24 masquerade
  }
}
END

stage database and queue
systemctl start mariadb rabbitmq-server memcached
for database in keystone glance placement neutron nova nova_api nova_cell0; do
    echo "CREATE DATABASE $database; GRANT ALL ON $database.* TO '${database%%_*}'@'%' IDENTIFIED BY 'pw';"
done | mysql
rabbitmqctl -q add_user openstack pw
rabbitmqctl -q set_permissions openstack '.*' '.*' '.*'

stage keystone
identity=http://$address:5000/v3
configure /etc/keystone/keystone.conf <<END
[database]
connection = mysql+pymysql://keystone:pw@127.0.0.1/keystone
[cache]
enabled = true
backend = dogpile.cache.memcached
memcache_servers = 127.0.0.1:11211
END
for api in keystone/keystone nova/nova-api nova/nova-api-metadata placement/placement-api neutron/neutron-api; do
    printf '[uwsgi]\nprocesses = 2\n' | configure /etc/$api-uwsgi.ini
done
as keystone 'keystone-manage db_sync' >/root/baseline-keystone.log 2>&1
keystone-manage fernet_setup --keystone-user keystone --keystone-group keystone
keystone-manage credential_setup --keystone-user keystone --keystone-group keystone
keystone-manage bootstrap --bootstrap-password pw --bootstrap-region-id RegionOne --bootstrap-admin-url "$identity" \
    --bootstrap-internal-url "$identity" --bootstrap-public-url "$identity"
systemctl restart keystone
export OS_AUTH_URL=$identity OS_USERNAME=admin OS_PASSWORD=pw OS_PROJECT_NAME=admin OS_USER_DOMAIN_NAME=Default \
    OS_PROJECT_DOMAIN_NAME=Default OS_IDENTITY_API_VERSION=3 OS_REGION_NAME=RegionOne

stage configuration
login() {
    cat <<END
[$1]
auth_type = password
auth_url = $identity
memcached_servers = 127.0.0.1:11211
project_domain_name = Default
user_domain_name = Default
project_name = service
username = $2
password = pw
region_name = RegionOne
END
}
queue=rabbit://openstack:pw@127.0.0.1:5672/
configure /etc/glance/glance-api.conf <<END
[DEFAULT]
enabled_backends = file:file
workers = 1
[database]
connection = mysql+pymysql://glance:pw@127.0.0.1/glance
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = /var/lib/glance/images
[paste_deploy]
flavor = keystone
$(login keystone_authtoken glance)
END
configure /etc/placement/placement.conf <<END
[placement_database]
connection = mysql+pymysql://placement:pw@127.0.0.1/placement
$(login keystone_authtoken placement)
END
configure /etc/nova/nova.conf <<END
[DEFAULT]
transport_url = $queue
my_ip = $address
[api_database]
connection = mysql+pymysql://nova:pw@127.0.0.1/nova_api
[database]
connection = mysql+pymysql://nova:pw@127.0.0.1/nova
[conductor]
workers = 1
[scheduler]
workers = 1
[spice]
enabled = false
[vnc]
enabled = true
server_listen = $address
server_proxyclient_address = $address
$(login keystone_authtoken nova)
$(login service_user nova)
send_service_user_token = true
$(login placement placement)
$(login neutron neutron)
service_metadata_proxy = true
metadata_proxy_shared_secret = pw
END
configure /etc/nova/nova-compute.conf <<END
[libvirt]
virt_type = $hypervisor
cpu_mode = $cpu_mode
[spice]
enabled = false
END
sed -i 's/spicehtml5$/novnc/' /etc/default/nova-consoleproxy
configure /etc/neutron/neutron.conf <<END
[DEFAULT]
core_plugin = ml2
service_plugins = segments
transport_url = $queue
[database]
connection = mysql+pymysql://neutron:pw@127.0.0.1/neutron
$(login keystone_authtoken neutron)
$(login nova nova)
END
configure /etc/neutron/plugins/ml2/ml2_conf.ini <<END
[ml2]
type_drivers = flat,geneve
tenant_network_types = geneve
mechanism_drivers = ovn
extension_drivers = port_security
[ml2_type_flat]
flat_networks = physnet1
[ml2_type_geneve]
vni_ranges = 1:65536
max_header_size = 38
[ovn]
ovn_nb_connection = tcp:$address:6641
ovn_sb_connection = tcp:$address:6642
ovn_metadata_enabled = true
END
configure /etc/neutron/neutron_ovn_metadata_agent.ini <<END
[DEFAULT]
nova_metadata_host = $address
metadata_proxy_shared_secret = pw
metadata_workers = 1
[ovs]
ovsdb_connection = unix:/var/run/openvswitch/db.sock
[ovn]
ovn_sb_connection = tcp:$address:6642
END
cat >>/etc/libvirt/libvirtd.conf <<END
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
auth_unix_rw = "none"
END
mkdir -p /etc/systemd/system/libvirtd.socket.d
printf '[Socket]\nSocketMode=0660\nSocketGroup=libvirt\n' >/etc/systemd/system/libvirtd.socket.d/baseline.conf
# With cgroup v1, controllers are read-only in a lab machine.
[ -e /sys/fs/cgroup/cgroup.controllers ] || echo 'cgroup_controllers = []' >>/etc/libvirt/qemu.conf
systemctl daemon-reload

stage schemas
{
    as glance 'glance-manage db_sync'
    as neutron 'neutron-db-manage --config-file /etc/neutron/neutron.conf \
        --config-file /etc/neutron/plugins/ml2/ml2_conf.ini upgrade head'
} >/root/baseline-schemas-1.log 2>&1 &
first=$!
{
    as placement 'placement-manage db sync'
    as nova 'nova-manage api_db sync && nova-manage cell_v2 map_cell0 &&
        nova-manage cell_v2 create_cell --name=cell1 && nova-manage db sync'
} >/root/baseline-schemas-2.log 2>&1
wait "$first"

stage catalog
python3 - <<END
import openstack

identity = openstack.connect().identity
project = identity.create_project(name="service", domain_id="default")
roles = [identity.find_role("admin"), identity.find_role("service")]
for name, kind, url in (
    ("glance", "image", "http://$address:9292"),
    ("placement", "placement", "http://$address:8778"),
    ("nova", "compute", "http://$address:8774/v2.1"),
    ("neutron", "network", "http://$address:9696"),
):
    user = identity.create_user(name=name, password="pw", domain_id="default")
    for role in roles:
        identity.assign_project_role_to_user(project, user, role)
    service = identity.create_service(name=name, type=kind)
    for interface in ("public", "internal"):
        identity.create_endpoint(service_id=service.id, interface=interface, url=url, region_id="RegionOne")
END

stage network
systemctl start openvswitch-switch ovn-central ovn-host
ovn-nbctl set-connection "ptcp:6641:$address"
ovn-sbctl set-connection "ptcp:6642:$address"
ovs-vsctl set-manager ptcp:6640:127.0.0.1 \
    -- set open . external-ids:ovn-remote="tcp:$address:6642" external-ids:ovn-encap-type=geneve \
    external-ids:ovn-encap-ip="$address" external-ids:ovn-bridge-datapath-type="$datapath" \
    external-ids:system-id="$(hostname)" external-ids:ovn-bridge-mappings=physnet1:br-provider \
    -- add-br br-provider -- set bridge br-provider datapath_type="$datapath" -- add-port br-provider ovs-br0

stage services
systemctl restart libvirtd.socket glance-api placement-api nova-api nova-api-metadata nova-conductor nova-scheduler \
    nova-novncproxy neutron-api neutron-ovn-metadata-agent nova-compute
# Debian has no units for these.
for worker in neutron-ovn-maintenance-worker neutron-periodic-workers; do
    systemd-run --quiet --unit "$worker" --uid neutron --gid neutron "$worker" \
        --config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini
done
until openstack compute service list -f value 2>/dev/null | grep -q 'nova-compute.*up'; do sleep 1; done
as nova 'nova-manage cell_v2 discover_hosts' >/root/baseline-cells.log 2>&1

stage first cloud
cat >/root/baseline-cloud.py <<END
import openstack

cloud = openstack.connect()
image = cloud.create_image(
    "guest", filename="$image", disk_format="qcow2", container_format="bare", visibility="public", wait=True
)
flavor = cloud.create_flavor("m1.tiny", 512, 1, 1)
network = cloud.network.create_network(
    name="nova", shared=True, provider_network_type="flat", provider_physical_network="physnet1"
)
cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="192.168.1.0/24", gateway_ip="192.168.1.1")
group = next(cloud.network.security_groups(project_id=cloud.current_project_id, name="default"))
cloud.network.create_security_group_rule(security_group_id=group.id, direction="ingress", protocol="icmp")
cloud.create_server("my_vm", image=image, flavor=flavor, network=network.id, auto_ip=False, wait=True, timeout=300)
END
python3 /root/baseline-cloud.py
stage server active
