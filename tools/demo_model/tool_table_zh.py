# ruff: noqa: E501 (tables)
"""Tools with Chinese descriptions or Chinese requests for training, in the layout of `tool_table_en`."""

ROWS = """
get_weather ~ weather ~ tianqi ~ query_weather|查询天气。 ~ 查询某个城市的天气。 ~ 获取城市的天气情况。 ~ Get the weather at a location.|city:zh_city|{city}的天气怎么样？ ~ 查询{city}的天气。 ~ {city}今天天气如何？ ~ 请告诉我{city}的天气。 ~ {city}现在下雨吗？ ~ 今天{city}的天气怎么样？
weather_forecast ~ get_forecast|查询天气预报。|city:zh_city,date:date?|查询{city}[{date}]的天气预报。 ~ {city}[{date}]的天气预报是什么？ ~ 请给我{city}[{date}]的预报。
calculator ~ calc ~ jisuan|计算算术表达式。 ~ 计算器。 ~ 计算表达式的值。 ~ Evaluate an arithmetic expression. ~ 进行数学计算。|expression:expression|计算{expression}。 ~ {expression}等于多少？ ~ {expression}是多少？ ~ 请计算 {expression}。 ~ 帮我算一下{expression}。 ~ {expression}=？ ~ 用计算器算{expression}。
search_documents ~ search ~ search_docs|搜索文档。 ~ 在文档中查找内容。 ~ Search the documents. ~ 按关键词搜索文档。|query:zh_text|搜索文档：{query}。 ~ 在文档中搜索{query}。 ~ 请搜索“{query}”。 ~ 在文档里查找{query}。 ~ 文档中关于{query}是怎么说的？ ~ 搜索{query}。
web_search ~ baidu|搜索网页。 ~ 在互联网上搜索。|query:zh_text|上网搜索{query}。 ~ 在网上查一下{query}。 ~ 在互联网上搜索“{query}”。
read_file ~ open_file ~ load_text|读取文件。 ~ 读取文本文件的内容。 ~ Read a text file.|path:path|读取文件{path}。 ~ 打开{path}。 ~ 文件 {path} 里写了什么？ ~ 请读取 {path} 的内容。 ~ 显示文件{path}的内容。
delete_file ~ remove_file|删除文件。|path:path|删除文件{path}。 ~ 请把{path}删除。 ~ 删掉 {path}。
create_customer ~ add_customer ~ new_client|创建客户。 ~ 新建客户。 ~ 添加一个客户。 ~ Create a customer.|name:zh_name|创建一个名为“{name}”的客户。 ~ 创建客户{name}。 ~ 新建客户，名字是{name}。 ~ 添加客户“{name}”。 ~ 请创建名叫{name}的客户。 ~ 创建名称为'{name}'的客户。
find_customer ~ get_customer|查找客户。 ~ 按姓名查询客户。|name:zh_name|查找客户{name}。 ~ 查询客户“{name}”的信息。 ~ 客户{name}是谁？
add_user ~ register_user|添加用户。 ~ 注册新用户。|name:zh_name,age:int,email:email?|添加用户{name}，年龄{age}[，邮箱{email}]。 ~ 注册用户“{name}”，{age}岁[，邮箱是{email}]。 ~ 新用户{name}，年龄是{age}[，邮箱：{email}]。
send_message ~ send_sms|给某人发消息。 ~ 发送短信。|recipient:zh_name,text:zh_quoted|给{recipient}发消息{text}。 ~ 发短信给{recipient}：{text}。 ~ 告诉{recipient}{text}。 ~ 把{text}发给{recipient}。
send_email ~ send_mail|发送邮件。|to:email,subject:zh_quoted,body:zh_quoted?|给{to}发一封邮件，主题是{subject}[，内容是{body}]。 ~ 发邮件到{to}，主题{subject}[，正文{body}]。
convert_currency ~ exchange|货币换算。 ~ 把一种货币换算成另一种货币。|amount:float,from_currency:currency,to_currency:currency|把{amount} {from_currency}换成{to_currency}。 ~ {amount} {from_currency}等于多少{to_currency}？ ~ 将{amount}{from_currency}换算成{to_currency}。
create_event ~ add_event|创建日程。 ~ 在日历中添加日程。|title:zh_quoted,date:date|在{date}添加日程{title}。 ~ 创建日程{title}，日期{date}。 ~ 把{title}加到{date}的日历。
set_reminder ~ remind_me|设置提醒。|text:zh_quoted,time:time|{time}提醒我{text}。 ~ 设置提醒{text}，时间{time}。 ~ 请在{time}提醒我：{text}。
multiply ~ chengfa|两个数相乘。 ~ 计算两个数的乘积。 ~ Multiply two numbers.|a:float,b:float|{a}乘以{b}是多少？ ~ 计算{a}乘{b}。 ~ {a}和{b}的乘积是多少？ ~ 请把{a}乘以{b}。
add ~ jiafa ~ plus|两个数相加。 ~ 计算两个数的和。|a:int,b:int|{a}加{b}等于多少？ ~ 计算{a}加{b}。 ~ {a}和{b}的和是多少？ ~ 把{a}和{b}相加。
subtract ~ jianfa|两个数相减。|a:float,b:float|{a}减{b}是多少？ ~ 计算{a}减去{b}。 ~ {a}减去{b}等于多少？
divide ~ chufa|两个数相除。|a:float,b:float|{a}除以{b}是多少？ ~ 计算{a}除以{b}。 ~ 用{a}除以{b}。
average ~ mean|计算一组数的平均值。|numbers:list(float)|{numbers}的平均值是多少？ ~ 计算{numbers}的平均值。 ~ 求{numbers}的平均数。
translate ~ translate_text|翻译文本。 ~ 把文本翻译成另一种语言。|text:zh_quoted,language:zh_language|把{text}翻译成{language}。 ~ 将{text}译成{language}。 ~ {text}用{language}怎么说？
get_time ~ get_date|返回当前日期。 ~ 查询今天的日期。||今天几号？ ~ 今天的日期是什么？ ~ 查询当前日期。
list_orders ~ all_orders|列出所有订单。||列出所有订单。 ~ 显示全部订单。 ~ 有哪些订单？
server_status ~ ping|检查服务器状态。||服务器状态怎么样？ ~ 检查服务器。 ~ 服务器正常吗？
get_order ~ query_order|查询订单状态。 ~ 按编号查询订单。|order_id:code|查询订单{order_id}。 ~ 订单{order_id}到哪里了？ ~ 订单 {order_id} 的状态是什么？
cancel_order ~ quxiao|取消订单。|order_id:code|取消订单{order_id}。 ~ 请取消编号为{order_id}的订单。
order_product ~ buy|订购商品。 ~ 购买商品。|product:zh_thing,quantity:int|订购{quantity}个{product}。 ~ 购买{product}，数量{quantity}。 ~ 请下单：{product}，{quantity}件。
get_route ~ navigate|查询两地之间的路线。 ~ 导航。|start:zh_city,end:zh_city|从{start}到{end}怎么走？ ~ 查询{start}到{end}的路线。 ~ 导航，从{start}去{end}。
book_hotel ~ hotel|预订酒店。|city:zh_city,nights:int|在{city}预订酒店，住{nights}晚。 ~ 预订{city}的酒店{nights}晚。 ~ 帮我订{city}的酒店，{nights}晚。
set_light ~ light|打开或关闭房间的灯。|room:zh_thing,on:zh_onoff|{on}{room}的灯。 ~ 请把{room}的灯{on}。
open_url ~ browse|打开网页。|url:url|打开网页{url}。 ~ 访问{url}。 ~ 请打开 {url}。
create_task ~ add_todo|创建任务。 ~ 添加待办事项。|title:zh_quoted,tags:list(zh_thing)?|创建任务{title}[，标签{tags}]。 ~ 添加待办{title}[，标签是{tags}]。
tell_joke ~ joke|讲一个笑话。|topic:zh_thing|讲一个关于{topic}的笑话。 ~ 说个{topic}的笑话。
magic_function ~ mystery|对输入应用神秘函数。|input:int|{tool}({input})的值是多少？请使用工具。 ~ 对{input}使用神秘函数。 ~ {tool}({input})等于多少？
open_account ~ enroll ~ register_person|登记会员。 ~ 办理登记手续。 ~ 开设账号。|owner:zh_name,level:int?|为{owner}办理登记手续[，级别{level}]。 ~ 给{owner}开设账号[，级别{level}]。 ~ 替{owner}登记会员[，级别是{level}]。 ~ 请为{owner}登记会员。
invite_person ~ call_guest|邀请参加者。|guest:zh_name|请通知“{guest}”作为参加者。 ~ 邀请{guest}参加。 ~ 邀请参加者{guest}。 ~ 让{guest}来参加。
root_of ~ nth_root|计算开方。|number:int,degree:int|{number}的{degree}次方根是多少？ ~ 计算{number}的{degree}次方根。 ~ 求{number}开{degree}次方。
ratio ~ percent|计算百分比。|part:float,whole:float|{part}占{whole}的百分比是多少？ ~ 计算{part}是{whole}的百分之几。
solve ~ equation_tool|求解算式。|term:expression|算式 {term} 的值是多少？ ~ 求解算式{term}。 ~ 算式{term}的答案是什么？
price_of ~ quote|查询商品代码的报价。|code:symbol|查询{code}的报价。 ~ 商品{code}现在的报价是多少？ ~ 代码{code}的报价如何？
move_file ~ rename_file|移动文件。|source:slug,target:slug|把{source}移动到{target}。 ~ 移动文件，{source}移到{target}。 ~ 将{source}改名为{target}。
"""
